"""The embedded cloud's HTTP server: cheroot, which keeps connections open.

moto's own server closes each connection, and waits 10 ms before it does.
"""

from cheroot import wsgi

from lambda_function.emulator.faults import CONNECTION

THREADS = 40  # requests at once: uploads, and what environments read in parallel
CONNECTIONS = 1000  # kept open while idle: each environment has some, and a new one takes time
STOP_LIMIT_S = 1  # for requests under way
SLOW_CLIENT_LIMIT_S = 300  # for a client to send what it announced; a busy machine is no error


class Gateway(wsgi.Gateway_10):
    """Adds what moto needs to tell keys apart, and the socket."""

    def get_environ(self) -> dict[str, object]:
        environ = super().get_environ()
        environ["RAW_URI"] = environ["REQUEST_URI"]
        environ[CONNECTION] = self.req.conn.socket
        return environ


def http_server(host: str, port: int) -> wsgi.Server:
    """A server that listens already, on a free port for 0; give it a `wsgi_app`, then serve().

    Raises OSError when the port is taken.
    """
    server = wsgi.Server(
        (host, port),
        None,
        numthreads=THREADS,
        server_name=host,
        timeout=SLOW_CLIENT_LIMIT_S,
        shutdown_timeout=STOP_LIMIT_S,
    )
    server.gateway = Gateway
    server.expiration_interval = 0.05  # how often it looks whether it is to stop, too
    server.keep_alive_conn_limit = CONNECTIONS
    server.prepare()
    return server
