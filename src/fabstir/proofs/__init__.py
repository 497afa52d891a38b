"""The ezkl shell behind `fabstir.ports.prover.Prover`: circuit files, keys, the prover process and its supervisor."""
