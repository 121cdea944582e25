"""What every package uses: errors, files, randomness, schedules, types, options of scripts."""
