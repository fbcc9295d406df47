package eventlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"waxseal/measure"
)

// Signatures at the start of the data of an EV_NO_ACTION event (PC Client
// Platform Firmware Profile, sections 10.4.5.1 and 10.4.5.3).
const (
	specIDSignature   = "Spec ID Event03\x00"
	localitySignature = "StartupLocality\x00"
)

// noAction checks an event that is covered by nothing: it has no digest, the
// Spec ID stands first and names the log's banks, and the start-up locality
// is said once, before PCR 0 is extended.
func (k *checker) noAction(e Event) error {
	for _, d := range e.Digests {
		if !allZero(d.Sum) {
			return fmt.Errorf("EV_NO_ACTION with a %v digest that is not zero: %w", d.Alg, ErrMalformed)
		}
	}
	switch {
	case bytes.HasPrefix(e.Data, []byte("Spec ID Event")):
		return k.specID(e)
	case bytes.HasPrefix(e.Data, []byte(localitySignature)):
		return k.startupLocality(e)
	}
	return nil
}

func (k *checker) specID(e Event) error {
	if k.n != 1 || e.PCR != 0 {
		return fmt.Errorf("a Spec ID event that is not the first of the log: %w", ErrMalformed)
	}
	banks, err := decodeSpecID(e.Data)
	if err != nil {
		return err
	}
	if !slices.Equal(banks, k.banks) {
		return fmt.Errorf("the Spec ID event names banks %v and the log has %v: %w", banks, k.banks, ErrMalformed)
	}
	return nil
}

func (k *checker) startupLocality(e Event) error {
	if e.PCR != 0 || len(e.Data) != len(localitySignature)+1 {
		return fmt.Errorf("the StartupLocality event of %d bytes in PCR %d: %w", len(e.Data), e.PCR, ErrMalformed)
	}
	if k.located || k.pcr0 {
		return fmt.Errorf("the StartupLocality event twice, or after PCR 0 was extended: %w", ErrMalformed)
	}
	locality := e.Data[len(localitySignature)]
	if locality != 0 && locality != 3 && locality != 4 {
		return fmt.Errorf("start-up locality %d is not one of 0, 3, 4: %w", locality, ErrMalformed)
	}
	k.located, k.locality = true, locality
	return nil
}

func isSpecID(e Event) bool {
	return e.Type == EVNoAction && bytes.HasPrefix(e.Data, []byte(specIDSignature))
}

// decodeSpecID returns the banks that a TCG_EfiSpecIdEvent names:
//
//	signature 16 | platformClass u32 | minor u8 | major u8 | errata u8 | uintnSize u8 |
//	n u32 | n × (algorithm u16, digestSize u16) | vendorInfoSize u8 | vendorInfo
//
// (PC Client Platform Firmware Profile, section 10.4.5.1; little-endian.)
func decodeSpecID(data []byte) ([]measure.Alg, error) {
	c := cursor{b: data}
	if string(c.take(uint32(len(specIDSignature)))) != specIDSignature {
		return nil, ErrFormat
	}
	c.le32() // platformClass: 0 client, 1 server
	minor, major, _, uintn := c.u8(), c.u8(), c.u8(), c.u8()
	n := c.le32()
	if c.err == nil && (major != 2 || minor != 0 || uintn < 1 || uintn > 2) {
		return nil, fmt.Errorf("the Spec ID event of version %d.%d, UINTN size %d: need 2.0 and 1 or 2: %w", major, minor, uintn, ErrMalformed)
	}
	if c.err == nil && (n == 0 || n > MaxBanks) {
		return nil, fmt.Errorf("the Spec ID event names %d PCR banks: need 1 to %d: %w", n, MaxBanks, ErrMalformed)
	}
	banks := make([]measure.Alg, 0, MaxBanks)
	for range min(n, MaxBanks) {
		alg, size := measure.Alg(c.le16()), c.le16()
		if c.err == nil && (alg.Size() == 0 || int(size) != alg.Size()) {
			return nil, fmt.Errorf("the Spec ID event gives %v a digest of %d bytes: unknown algorithm or size: %w", alg, size, ErrMalformed)
		}
		banks = append(banks, alg)
	}
	c.take(uint32(c.u8())) // vendorInfo
	if err := c.end(); err != nil {
		return nil, fmt.Errorf("the Spec ID event: %w", err)
	}
	return banks, nil
}

// encodeSpecID returns the data of a Spec ID event for banks, for a 64-bit
// client platform and revision 1.05 of the profile.
func encodeSpecID(banks []measure.Alg) []byte {
	b := []byte(specIDSignature)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, 0, 2, 105, 2)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(banks)))
	for _, alg := range banks {
		b = binary.LittleEndian.AppendUint16(b, uint16(alg))
		b = binary.LittleEndian.AppendUint16(b, uint16(alg.Size()))
	}
	return append(b, 0)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
