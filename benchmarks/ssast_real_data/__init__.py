"""What pretraining is worth on real recordings: SSAST pretrained once, probed and fine-tuned on seven tasks.

Read rows.py (the tasks), stages.py (what is computed, each stage once), tables.py (figures with their intervals) and
page.py (docs/ssast_real_data.md and its picture).
"""
