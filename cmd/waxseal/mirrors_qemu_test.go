package main

import "testing"

// What looks at a router's kernel is tried on the router's own: it has no TCX,
// renames no device that is up, and has kinds of devices that a build host's
// may lack. Passes and failures are those of the packages' tests.
func TestMirrorsInQEMU(t *testing.T) {
	runInside(t, []suite{
		{"hook.test", "./agent/mirror/probe/hook", "."},
		{"netns.test", "./agent/mirror/probe/netns", "."},
		{"config.test", "./agent/mirror/probe/config", "."},
		{"inventory.test", "./agent/mirror/probe/inventory", "."},
	})
}
