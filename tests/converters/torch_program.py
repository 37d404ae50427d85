"""A layer of a transformer's encoder, exported by ``torch.export``."""

import torch


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = torch.nn.LayerNorm(32)
        self.wide = torch.nn.Linear(32, 64)
        self.narrow = torch.nn.Linear(64, 32)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        tokens = self.norm(tokens + mixed)
        return tokens + self.narrow(torch.nn.functional.gelu(self.wide(tokens)))


def export(**options: object) -> torch.export.ExportedProgram:
    example = (torch.zeros(2, 16, 32),)
    return torch.export.export(Encoder().eval(), example, **options)  # type: ignore[arg-type]


def encoder() -> torch.export.ExportedProgram:
    return export()


constant = encoder()
any_batch = export(dynamic_shapes={"tokens": {0: torch.export.Dim("batch")}})

if __name__ == "__main__":
    import sys

    torch.export.save(constant, sys.argv[1])
