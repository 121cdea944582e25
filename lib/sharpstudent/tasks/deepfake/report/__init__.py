"""Results and reports of evaluations of detectors: figures, sentences, charts, pages and model cards."""
