"""Printing is the inverse of reading."""

from __future__ import annotations

from hlo_lab.ir import print_module, read_text


def test_print_and_read_back(small):
    text = print_module(small)
    again = read_text(text)
    assert small.difference(again) is None
    assert again.frames == small.frames and again.header == small.header
    assert print_module(again) == text


def test_text_of_a_printer_is_kept_word_for_word(small, small_text):
    printed = print_module(small).splitlines()
    missing = [line for line in small_text.splitlines() if line and line not in printed]
    # only the signatures differ: this printer keeps their layouts
    assert all(line.endswith("{") for line in missing), missing


def test_every_attribute_reads_back(fixtures):
    module = read_text((fixtures / "hlo" / "every_attribute.hlo").read_text())
    assert module.difference(read_text(print_module(module))) is None


def test_threads_and_escapes_read_back():
    module = read_text(
        "HloModule m\n%f (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n"
        '}, execution_thread="sparse"\n\nENTRY %e {\n  %x = f32[] parameter(0)\n  ROOT %c = f32[] '
        'call(%x), to_apply=%f, metadata={op_name="it\\\'s \\"a\\" \\303\\251\\n"}\n}\n'
    )
    assert module.execution_threads == {0: "sparse"}
    assert module.instruction("c").op_name == 'it\'s "a" é\n'
    again = read_text(print_module(module))
    assert module.difference(again) is None and again.execution_threads == {0: "sparse"}
