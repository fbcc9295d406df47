package mirror

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// soup makes observations of a router on which several people do several things
// at once.
func soup(random *rand.Rand) []step {
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	var steps []step
	for range 4 + random.IntN(30) {
		at := time.Duration(random.IntN(4000)) * time.Millisecond
		o := Observation{Time: start.Add(at), Detector: "test", Count: 1}
		switch random.IntN(8) {
		case 0:
			o.Kind, o.In, o.Target, o.Cause = Rule, pick("", "r0", "r1", "ifb9"), pick("", "r2", "vxlan9", "ifb9", "192.0.2.9"), pick("tc mirred mirror", "nft dup", "ip rule")
			o.Subject = fmt.Sprint(o.In, o.Target, o.Cause)
		case 1:
			o.Kind, o.In, o.Cause = Socket, pick("", "r0"), "packet socket"
			o.Subject = o.In
		case 2:
			o.Kind, o.In, o.Cause = Program, pick("", "r0", "r1"), pick("calls bpf_clone_redirect", "counts")
			o.Subject = o.In + o.Cause
		case 3:
			o.Kind, o.In, o.Target, o.Cause = Device, "vxlan9", "192.0.2.9", "new tunnel vxlan"
		case 4:
			o.Kind, o.In, o.Cause = Device, pick("r0", "r1"), "promiscuous mode"
			o.Subject = o.In
		case 5:
			o.Kind, o.In, o.Out, o.FIB = pick2(random, Misroute, Early, Bypass), pick("r0", "r1"), "r2", "r1"
		case 6:
			o.Kind, o.In, o.Copy = Duplicate, pick("r0", "r1"), pick("r2", "r3")
		default:
			o.Kind, o.In, o.Copy, o.Encap = Inside, pick("r0", "r1"), "r2", "vxlan"
			o.Outer.Destination = netip.MustParseAddr(pick("192.0.2.9", "192.0.2.10"))
		}
		steps = append(steps, step{at, &o})
	}
	return steps
}

func pick2(random *rand.Rand, kinds ...Kind) Kind { return kinds[random.IntN(len(kinds))] }

func TestIncidentsAreTheSameInWhateverOrderTheyAreSeen(t *testing.T) {
	c := judged{ports: []string{"r0", "r1", "r2", "r3"}}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		steps := soup(random)
		slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
		want := summaries(c.run(steps))
		for range 5 {
			random.Shuffle(len(steps), func(a, b int) { steps[a], steps[b] = steps[b], steps[a] })
			if got := summaries(c.run(steps)); got != want {
				for _, s := range steps {
					t.Log(s.at, s.see.Kind, s.see.In, s.see.leaves(), s.see.Target, s.see.Cause, s.see.Encap, s.see.Outer.Destination)
				}
				t.Fatalf("seed %d: got\n%swant\n%s", seed, got, want)
			}
		}
	}
}
