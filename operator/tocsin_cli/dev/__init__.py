"""`tocsin dev`: a whole pipeline on this machine, from the resource that a cluster would get.

What runs here is what runs in pods: the same entry points, the same configuration builder, the same scaling decision,
on a real Kafka. Only the hands differ: processes instead of Deployments. A mock broker and an in-process pipeline were
refused, because what works on them says little about what works.
"""
