"""The fast model: the real handler, metrics_log, wait step and dead_letters.py on a virtual clock.

One seed decides a whole campaign: what is uploaded, what goes wrong, and in which order concurrent
invocations reach S3. The same seed gives the same campaign, step by step, on every machine.

Vocabulary
    campaign   one seed's runs, from the first upload until nothing is under way any more
    actor      what runs code of the project: an invocation of the function, or an orchestrator
    step       an actor's request to S3 or SQS, or its sleep: there, and only there, others go on
    disruption what may leave a row object to the next append: an actor that died, failed or ran out
               of time, or a request that arrived after its sender had given it up

    schedule.py    actors, one at a time, and the virtual clock
    services.py    S3 and SQS in memory, S3 with exact conditional writes
    network.py     latency, faults, and the client's own retries
    plan.py        from a seed to what happens in its campaign
    campaign.py    the function's asynchronous delivery, the orchestrators, the end
    invariants.py  what must hold after every step and in the end
    mutations.py   one-line errors in the shipped code that the model must find
"""
