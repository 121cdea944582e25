"""Results and reports of evaluations of detectors: metrics, sentences, charts, pages and model cards."""
