package agent_test

import (
	"testing"
	"time"

	"waxseal/agent"
)

// A router without a battery: its clock starts in 1970 at each boot.
func TestRouterWithoutAClockIsEnrolledAndAttests(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Now = func() time.Time { return time.Unix(100, 0) } })
	client := l.owner.client(t) // older than the certificates by which the router will know the time
	if err := l.dial(t, client).Enrollz().RotateOIAK(t.Context(), l.rotation(t)); err != nil {
		t.Fatalf("rotation while the clock stands in 1970: %v", err)
	}
	l.stop()
	l.start(t)
	if _, err := l.dial(t, client).Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Fatalf("challenge after a restart in 1970: %v", err)
	}
	if _, err := l.dial(t, l.stranger.client(t)).Attestz().Attest(t.Context(), newRequest(t)); err == nil {
		t.Error("a stranger was answered by a router without a clock")
	}
}
