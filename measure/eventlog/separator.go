package eventlog

import (
	"errors"
	"fmt"

	"waxseal/measure"
)

// ErrSeparator means that the firmware did not close its PCRs as it must.
var ErrSeparator = errors.New("separators of the firmware are not in order")

// separatorData are the data that an EV_SEPARATOR without error may have (PC
// Client Platform Firmware Profile, section 10.4.1).
var separatorData = [][]byte{{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}}

// lastFirmwarePCR is the last of the PCRs that the firmware closes with a
// separator before it starts a boot loader.
const lastFirmwarePCR measure.PCR = 7

// closedBySeparator tells whether nothing may follow the separator of pcr.
// Boot variables (1, on some machines), boot loaders (4), partition tables and
// ExitBootServices (5) and the authorities of what is loaded (7) come after it.
func closedBySeparator(pcr measure.PCR) bool {
	return pcr == 0 || pcr == 2 || pcr == 3 || pcr == 6
}

// CheckSeparators tells whether each of PCR 0 to 7 has exactly one separator
// in bank, and PCR 0, 2, 3 and 6 have nothing after it. The type of an event
// is not authenticated: what has another type but the digest of a separator
// counts as a second one (before the first, some firmware has such events).
func (l Log) CheckSeparators(bank measure.Alg) error {
	if !bank.Computable() {
		return fmt.Errorf("separators in bank %v: need SHA-256 or stronger", bank)
	}
	var known []measure.Digest
	for _, data := range separatorData {
		known = append(known, measure.Hash(bank, data))
	}
	var closed [lastFirmwarePCR + 1]bool
	for i, e := range l.Events {
		if e.PCR > lastFirmwarePCR || !e.Extends() {
			continue
		}
		d, _ := e.Digest(bank)
		good := d.Equal(known[0]) || d.Equal(known[1])
		switch {
		case good && closed[e.PCR]:
			return fmt.Errorf("event %d: second separator in PCR %d: %w", i, e.PCR, ErrSeparator)
		case good && e.Type == EVSeparator:
			closed[e.PCR] = true
		case e.Type == EVSeparator:
			return fmt.Errorf("event %d: separator in PCR %d reports an error of the firmware: %w", i, e.PCR, ErrSeparator)
		case closed[e.PCR] && closedBySeparator(e.PCR):
			return fmt.Errorf("event %d: %s follows the separator of PCR %d: %w", i, TypeName(e.Type), e.PCR, ErrSeparator)
		}
	}
	for pcr, ok := range closed {
		if !ok {
			return fmt.Errorf("PCR %d has no separator: %w", pcr, ErrSeparator)
		}
	}
	return nil
}
