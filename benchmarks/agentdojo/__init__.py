"""AgentDojo's ground truth through the gateway: what one general policy per suite lets pass.

Nothing here involves a model.  AgentDojo (pip ``agentdojo``, MIT) ships, for every user task and every
injected task, the tool calls that would do it.  Each is asked of the real gateway in production
mode and, when allowed, executed in AgentDojo's own environment; what it answers is recorded with
the labels that the suite's tool catalog declares.  So the figures test a *policy*, not a model: a
model that is never fooled, or that rephrases what it was told to send, is another question.
"""
