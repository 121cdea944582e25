"""One room per kind of raw material. A modality knows neither config nor models: it turns files into arrays."""
