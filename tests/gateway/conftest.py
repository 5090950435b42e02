"""One whole stack with a gateway for all tests of the doors, its models on a simulated server."""

from harness.live import LiveGateway, live_gateway

__all__ = ["LiveGateway", "live_gateway"]
