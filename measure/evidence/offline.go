package evidence

import (
	"maps"
	"slices"
	"time"
)

// Offline returns the challenge that evidence in a file answers, by its own
// word. Verified against it, evidence is shown to be genuine and whole, never
// to be fresh: whoever judges a file must know from elsewhere when it was taken.
func (ev Evidence) Offline() Challenge {
	return Challenge{
		Nonce: ev.Nonce, Batched: ev.Batch != nil, Bank: ev.Bank, PCRs: slices.Sorted(maps.Keys(ev.PCRs)),
		Issued: ev.Received, Deadline: ev.Received.Add(time.Nanosecond), UnsafeClock: true,
	}
}
