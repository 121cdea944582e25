"""What users have on disk: one file a layout, each turning a folder into `RawClip`s. Import the module you need."""
