package main

import "testing"

// What looks at a router's kernel is tried on the router's own: it has no TCX,
// renames no device that is up, verifies programs more narrowly, and has kinds
// of devices that a build host's may lack. Passes and failures are those of
// the packages' tests; the last of them is the whole watch on every attack and
// on what is harmless.
func TestMirrorsInQEMU(t *testing.T) {
	runInside(t, []suite{
		{"hook.test", "./agent/mirror/probe/hook", "."},
		{"probe.test", "./agent/mirror/probe", "."},
		{"config.test", "./agent/mirror/probe/config", "."},
		{"inventory.test", "./agent/mirror/probe/inventory", "."},
		{"watch.test", "./cmd/waxseald", "^(TestWatchFindsEveryAttack|TestWatchRaisesNoAlarmOverHarmlessTraffic)$"},
	})
}
