"""What the same probe accuracy costs by a paper's pretext task and by masked latent prediction.

Read stages.py (what is computed, each stage once), figures.py (from the records to the cost of an accuracy) and page.py
(docs/cheaper_pretraining.md and its picture). What is heard and probed, and how, is that of benchmarks/ssast_real_data.
"""
