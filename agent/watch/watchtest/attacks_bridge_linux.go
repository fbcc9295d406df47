package watchtest

import "waxseal/agent/mirror"

var attacksByBridge = []Attack{
	{Name: "bridge that has become a hub", Shape: Hubbed, Want: Want{Kinds: []mirror.Kind{mirror.Hub, mirror.Device}, Cause: "hub", Severity: mirror.Alarm}, Start: script(`
		ip link set br0 type bridge ageing_time 0
		bridge link set dev r0 learning off
		bridge link set dev r1 learning off`)},
	{Name: "bridge whose one port does not learn", Shape: Hubbed, Want: Want{Kinds: []mirror.Kind{mirror.Hub, mirror.Device}, Severity: mirror.Notice, Cause: "learn|flood|hub"}, Start: script(`
		bridge link set dev r1 learning off
		bridge fdb del 02:71:00:00:01:02 dev r1 master`)},
	{Name: "mirror between ports of a bridge", Shape: Hubbed, Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "mirror at a bridge's egress", Shape: Bridged, Want: leaving("mirred"), Start: script(`
		tc qdisc add dev r1 clsact
		tc filter add dev r1 egress protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "mirror of a bridge itself", Shape: Bridged, Want: Want{Kinds: []mirror.Kind{mirror.Rule, mirror.Duplicate, mirror.Hub}, Cause: "mirred", Severity: mirror.Alarm}, Start: script(`
		tc qdisc add dev br0 clsact
		tc filter add dev br0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "nft dup in the bridge family's netdev chain", Shape: Bridged, Want: leaving("nft.* dup"), Start: nft(`table netdev wx { chain c {
		type filter hook ingress devices = { r0, r1 } priority 0;
		dup to "r2"; }
}`)},
}
