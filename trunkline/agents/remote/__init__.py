"""The three ports and the turn detector over gRPC: what crosses the wire, who asks (client), who answers (server)."""

from trunkline.errors import MissingExtra

try:
    import google.protobuf  # noqa: F401
    import grpc  # noqa: F401
except ImportError:
    raise MissingExtra("grpcio", "grpc") from None
