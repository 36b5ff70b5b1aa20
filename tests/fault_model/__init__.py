"""The fast model: the real handler, metrics writer, wait and dead_letters.py on a virtual clock.

One seed decides a whole campaign: what is uploaded, what goes wrong, and in which order concurrent
invocations reach S3. The same seed gives the same campaign, step by step, on every machine.

Vocabulary
    campaign   one seed's runs, from the first upload until nothing is under way any more
    actor      what runs code of the project: an invocation of a function, or an orchestrator
    step       an actor's request to S3 or SQS, or its sleep: there, and only there, others go on

    schedule.py    actors, one at a time, and the virtual clock
    services.py    S3 and SQS in memory, S3 with exact conditional writes
    network.py     latency, faults, and the client's own retries
    plan.py        from a seed to what happens in its campaign
    campaign.py    delivery of events and rows, the writers, the orchestrators, the end
    invariants.py  what must hold after every step and in the end
    mutations.py   errors in the shipped code that the model must find
"""
