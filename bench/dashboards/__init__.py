"""The Grafana dashboards of ``dashboards/``: made here (``make dashboards``), and drawn as pictures for documents."""
