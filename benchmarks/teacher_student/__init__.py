"""Teacher-student learning beside SSAST at equal cost: clips on seven tasks, events on two sets.

Read systems.py (who is compared), stages.py (what is computed, each stage once), frames.py (events out of frozen time
steps), events.py (scores of events with their intervals), page.py (docs/teacher_student.md and its picture). What is
pretrained and probed, and how, is that of benchmarks/ssast_real_data.
"""
