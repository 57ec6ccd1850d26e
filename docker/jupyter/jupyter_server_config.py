# Settings that every session has. What differs from session to session is given by the entrypoint.
c = get_config()  # noqa: F821 - Jupyter defines it when it reads this file

c.ServerApp.ip = "0.0.0.0"
c.ServerApp.port = 8888
# Another port would be one that nobody forwards to.
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/workspace"

c.ServerApp.identity_provider_class = "runit_identity.HeaderIdentityProvider"
c.ServerApp.allow_unauthenticated_access = False
# The gateway checks Host and Origin; here the one is the gate's, the other the gateway's.
c.ServerApp.allow_remote_access = True
# Matches nothing. Unset, an authenticated request's Origin would be sent back as allowed.
c.ServerApp.allow_origin_pat = "(?!)"

# Output arrives whole, however fast. What limits it is the session's byte cap.
c.ServerApp.limit_rate = False
c.ZMQChannelsWebsocketConnection.limit_rate = False
# Bodies are held in memory, so this has to stay well under the container's. JupyterLab uploads in pieces of 1 MiB.
c.ServerApp.max_body_size = 512 * 1024 * 1024
c.ServerApp.max_buffer_size = 512 * 1024 * 1024
# Milliseconds. Often enough for proxies that end a connection after 60 s or 100 s of silence.
c.ServerApp.tornado_settings = {"ws_ping_interval": 30_000, "ws_ping_timeout": 90_000}

# Not a login shell: /etc/profile would set PATH anew, without the renter's environment.
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}

# A trash would keep the space of what was deleted, and there is no desktop to empty it.
c.FileContentsManager.delete_to_trash = False
c.AsyncFileContentsManager.delete_to_trash = False
c.AsyncLargeFileManager.delete_to_trash = False

# Nothing asks the internet for news, updates or extensions; the image is read-only, so none could be installed.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
