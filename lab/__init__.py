"""Three hosts on one machine: network namespaces joined by veth, for tests, benchmarks and the demo."""
