"""The only place that builds objects and wires rooms together.

Rules
-----
* Rooms get what they need by argument; nobody else opens a workspace, a ledger or a registry.
* Nothing is imported here: the gateway must start in a second, so each entrance loads the rooms
  it needs and no more (MLflow stays out of the gateway, the engine out of the gateway and runs).
"""
