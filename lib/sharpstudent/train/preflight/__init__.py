"""Before the first step of stage 2: student and teachers are evaluated, and what would go wrong is said."""
