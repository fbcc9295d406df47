package probe

// Sampling aims at enough looks a second to see a mirror within a tenth of a
// second, and at no more than a router notices.
const (
	wantMost  = 5000 // sampled packets a second above which fewer are looked at
	wantLeast = 1000 // below which more are
	leastRate = 1 << 16
)

// next returns the mask after a period in which n packets were sampled. Masks
// are nested: what a larger one samples, a smaller one does too, so that a packet
// in flight is not lost by a change.
func next(mask uint32, n uint64, seconds float64) uint32 {
	if seconds <= 0 {
		return mask
	}
	rate := float64(n) / seconds
	for rate > wantMost && mask < leastRate-1 {
		mask, rate = mask<<1|1, rate/2
	}
	if rate < wantLeast {
		mask >>= 1 // one step back at a time: a pause is no reason to look at everything
	}
	return mask
}
