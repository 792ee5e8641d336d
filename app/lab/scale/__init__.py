"""A fleet of 200 replicas on one virtual clock: what the cache costs its database and its Redis, and what it survives.

`plan` says what is simulated. `network`, `redis` and `origin` are the world around a replica, `replica` wires the real
`app/cache` into it, `workload` draws the reads, `tally` counts, and `world` lets all of it run; what came of it is an
`outcome`. `least` and `theory` say what could be had at best and what is to be expected, `judgement` whether it was so.
`contrast` is the same without lease and L1, and `real` compares a few simulated replicas with as many real processes;
`aside` has another processor simulate meanwhile.
"""
