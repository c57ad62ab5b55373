"""The class is the experiment: each laptop runs one fresh split, and a pool gathers what they find.

`client` is what a learner calls, `server` what the instructor opens; `journal` keeps what came,
`book` says what counts, `reading` what it comes to, `picture` what the class takes home."""
