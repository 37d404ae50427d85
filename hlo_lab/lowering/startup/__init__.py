"""What ``hlo-lab run`` puts in front of ``PYTHONPATH``; nothing else may be in this folder."""
