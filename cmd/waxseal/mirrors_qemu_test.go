//go:build inside

package main

import "testing"

// core are the set-ups by which a watch must hold on every kernel, and those
// that only a distribution's kernel can make. They are the names of tests.
const core = "tc_mirred_mirror_at_ingress|tc_mirred_mirror_at_egress|tc_mirred_redirect|tc_mirred_mirror_into_VXLAN$|" +
	"nft_ip_dup$|nft_netdev_dup_at_ingress|nft_netdev_dup_at_egress|nft_netdev_fwd|iptables-legacy_TEE|" +
	"bpf_clone_redirect_from_cls_bpf|XDP_broadcast|sends_over_UDP$|sends_over_GRE$|sends_over_ERSPAN$|sends_over_VXLAN|" +
	"TPACKET_V3|promiscuous_mode$|become_a_hub|mirror_between_ports"

// What looks at a router's kernel is tried on the router's own: it has no TCX,
// verifies programs more narrowly, and has kinds of devices that a build host's
// may lack. Passes and failures are those of the packages' tests.
func TestMirrorsInQEMU(t *testing.T) {
	runInside(t, []suite{
		{"watch.test", "./cmd/waxseald", "-test.run '^TestWatchFindsEveryAttack$/(" + core + ")'"},
	})
}

// TestProbesInQEMU tries there what stands on the ports: this kernel has filters
// where others have TCX links.
func TestProbesInQEMU(t *testing.T) {
	runInside(t, []suite{
		{"hook.test", "./agent/mirror/probe/hook", "-test.run 'TestHooksSee|TestARemoved|TestAFilterInFront|TestASenderThatBypasses'"},
		{"probe.test", "./agent/mirror/probe", "-test.run 'TestThisKernel|TestStructs'"},
	})
}
