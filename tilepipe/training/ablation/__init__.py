"""The comparison of decoder mechanisms: same encoder, data, budget and seeds, measured alike.

study_config  CompareConfig: sets, mechanisms, seeds, from YAML
scores        the figures of a model on scenes kept apart, and its speed
results       results.jsonl: finished runs, which are not run again
gallery       what the models said at an early step, as a picture
table         mean and spread over seeds, as JSON and Markdown
study         compare: the steps above in order
"""
