"""Before the first step of stage 2: student and teachers are evaluated, and warnings say what would go wrong."""
