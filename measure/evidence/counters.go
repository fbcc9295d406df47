package evidence

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"waxseal/measure"
)

const startPrefix = "phase/start/"

// StartName returns the name of the record by which the agent says in which
// boot it measures. Its content is the SHA-256 of the name.
func StartName(reset, restart uint32) string {
	return fmt.Sprintf("%s%d.%d", startPrefix, reset, restart)
}

// FirmwareUpdateName returns the name of the record by which the agent says
// that the TPM's firmware was updated to version.
func FirmwareUpdateName(version uint64) string { return fmt.Sprintf("update/tpm/%016x", version) }

// checkStart tells whether the log was written in the boot that the quote is
// of: every start that it records has the counters of the quote.
func (c Counters) checkStart(records []measure.Record) error {
	want := StartName(c.Reset, c.Restart)
	found := false
	for _, r := range records {
		if !strings.HasPrefix(r.Name, startPrefix) {
			continue
		}
		if r.Name != want || r.Content != sha256.Sum256([]byte(want)) {
			return fmt.Errorf("%w: it says %s, the quote %s", ErrStart, r.Name, want)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("%w: it has no %s", ErrStart, want)
	}
	return nil
}

// checkSince compares the counters with those of the last verified answer.
func (c Counters) checkSince(previous *Counters, records []measure.Record) error {
	if previous == nil {
		return nil
	}
	p := *previous
	switch {
	case c.Reset < p.Reset:
		return fmt.Errorf("%w: resetCount %d after %d", ErrCounters, c.Reset, p.Reset)
	case c.Reset == p.Reset && c.Restart < p.Restart:
		return fmt.Errorf("%w: restartCount %d after %d", ErrCounters, c.Restart, p.Restart)
	case c.Reset == p.Reset && c.Clock < p.Clock:
		return fmt.Errorf("%w: clock %d ms after %d ms", ErrCounters, c.Clock, p.Clock)
	case c.FirmwareVersion != p.FirmwareVersion && !updated(records, c.FirmwareVersion):
		return fmt.Errorf("%w: firmware %016x after %016x without an update record", ErrCounters, c.FirmwareVersion, p.FirmwareVersion)
	}
	return nil
}

func updated(records []measure.Record, version uint64) bool {
	for _, r := range records {
		if r.Name == FirmwareUpdateName(version) {
			return true
		}
	}
	return false
}
