"""Small pictures with few classes, learnt by token transformers whose feed-forward layers are Tsetlin machines."""
