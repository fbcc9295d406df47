package agent

import (
	"crypto/x509"
	"time"
)

// floored returns a clock that never shows a time before the newest of certs
// began to be valid. A router without a battery starts in 1970; what it holds
// was issued before it last ran, so the true time is later than all of it.
func floored(clock func() time.Time, certs ...*x509.Certificate) func() time.Time {
	var floor time.Time
	for _, c := range certs {
		if c.NotBefore.After(floor) {
			floor = c.NotBefore
		}
	}
	return func() time.Time {
		if now := clock(); now.After(floor) {
			return now
		}
		return floor
	}
}
