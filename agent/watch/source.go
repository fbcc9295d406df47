// Package watch runs detection: it opens the probes, gives what they see to the
// judge, and reports incidents in the order in which they were judged.
//
// It judges nothing itself, and it never stands in the way of a packet.
package watch

import (
	"context"

	"waxseal/agent/mirror"
)

// Source sees something of the kernel. It is open: whatever it hooks is in place.
type Source interface {
	// Capabilities says what the source can and cannot see on this kernel.
	Capabilities() []mirror.Capability
	// Run emits what the source sees until ctx is done. It begins with what is
	// there already, marked as baseline. emit may be called by several
	// goroutines and does not block. Run returns nil when ctx is done, after the
	// last emit.
	Run(ctx context.Context, emit func(mirror.Observation)) error
	// Close takes away whatever the source has hooked.
	Close() error
}
