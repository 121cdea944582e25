"""Code that every other package uses: errors, files, random states, schedules, types, options of scripts."""
