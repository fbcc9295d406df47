package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"waxseal/measure"
)

const format = "waxseal-journal-1"

// startLine is the first line of a journal.
type startLine struct {
	Format string     `json:"format"`
	Banks  []string   `json:"banks"`
	Start  []pcrStart `json:"start"`
}

type pcrStart struct {
	PCR    measure.PCR `json:"pcr"`
	Values []string    `json:"values"` // one for each bank, in hexadecimal
}

// eventLine is each further line. The digests that were extended follow from
// the record and the banks, so that they are not written.
type eventLine struct {
	PCR    measure.PCR `json:"pcr"`
	Name   string      `json:"name"`
	SHA256 string      `json:"sha256"`
}

func encodeStart(start []measure.PCRValue) ([]byte, error) {
	if len(start) == 0 {
		return nil, errors.New("begin journal: no PCRs")
	}
	line := startLine{Format: format}
	banks := banksOf(start)
	for _, b := range banks {
		line.Banks = append(line.Banks, b.String())
	}
	for _, s := range start {
		if !slices.Equal(banks, algsOf(s.Values)) {
			return nil, fmt.Errorf("begin journal: PCR %d has other banks than PCR %d", s.PCR, start[0].PCR)
		}
		p := pcrStart{PCR: s.PCR}
		for _, v := range s.Values {
			p.Values = append(p.Values, hex.EncodeToString(v.Sum))
		}
		line.Start = append(line.Start, p)
	}
	return encodeLine(line)
}

func decodeStart(b []byte) ([]measure.PCRValue, error) {
	var line startLine
	if err := decodeLine(b, &line); err != nil {
		return nil, err
	}
	if line.Format != format {
		return nil, fmt.Errorf("format is %q: need %q", line.Format, format)
	}
	var banks []measure.Alg
	for _, name := range line.Banks {
		alg, err := measure.ParseAlg(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(banks, alg) {
			return nil, fmt.Errorf("bank %s stands twice", name)
		}
		banks = append(banks, alg)
	}
	if len(banks) == 0 || len(line.Start) == 0 {
		return nil, errors.New("no banks or no PCRs")
	}
	var start []measure.PCRValue
	for _, p := range line.Start {
		if p.PCR >= measure.NumPCRs || slices.ContainsFunc(start, func(s measure.PCRValue) bool { return s.PCR == p.PCR }) {
			return nil, fmt.Errorf("PCR %d is out of range or stands twice", p.PCR)
		}
		v, err := decodeValues(p.Values, banks)
		if err != nil {
			return nil, fmt.Errorf("PCR %d: %w", p.PCR, err)
		}
		start = append(start, measure.PCRValue{PCR: p.PCR, Values: v})
	}
	return start, nil
}

func decodeValues(values []string, banks []measure.Alg) ([]measure.Digest, error) {
	if len(values) != len(banks) {
		return nil, fmt.Errorf("%d values for %d banks", len(values), len(banks))
	}
	var digests []measure.Digest
	for i, text := range values {
		sum, err := decodeHex(text, banks[i].Size())
		if err != nil {
			return nil, fmt.Errorf("bank %v: %w", banks[i], err)
		}
		digests = append(digests, measure.Digest{Alg: banks[i], Sum: sum})
	}
	return digests, nil
}

func encodeEvent(e measure.Event, start []measure.PCRValue) ([]byte, error) {
	if err := checkEvent(e.Record, start); err != nil {
		return nil, err
	}
	if !slices.EqualFunc(e.Digests, e.Record.Digests(banksOf(start)), measure.Digest.Equal) {
		return nil, fmt.Errorf("event %s: its digests are not those of its payload in banks %v", e.Name, banksOf(start))
	}
	return encodeLine(eventLine{e.PCR, e.Name, hex.EncodeToString(e.Content[:])})
}

func decodeEvent(b []byte, start []measure.PCRValue) (measure.Event, error) {
	var line eventLine
	if err := decodeLine(b, &line); err != nil {
		return measure.Event{}, err
	}
	sum, err := decodeHex(line.SHA256, sha256.Size)
	if err != nil {
		return measure.Event{}, fmt.Errorf("sha256: %w", err)
	}
	rec := measure.Record{PCR: line.PCR, Name: line.Name, Content: [sha256.Size]byte(sum)}
	if err := checkEvent(rec, start); err != nil {
		return measure.Event{}, err
	}
	return measure.Event{Record: rec, Digests: rec.Digests(banksOf(start))}, nil
}

func checkEvent(rec measure.Record, start []measure.PCRValue) error {
	if err := rec.Check(); err != nil {
		return err
	}
	if !slices.ContainsFunc(start, func(s measure.PCRValue) bool { return s.PCR == rec.PCR }) {
		return fmt.Errorf("event %s: PCR %d was not begun", rec.Name, rec.PCR)
	}
	return nil
}

func banksOf(start []measure.PCRValue) []measure.Alg {
	if len(start) == 0 {
		return nil
	}
	return algsOf(start[0].Values)
}

func algsOf(values []measure.Digest) []measure.Alg {
	var algs []measure.Alg
	for _, v := range values {
		algs = append(algs, v.Alg)
	}
	return algs
}

func encodeLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(b, '\n'), err
}

// decodeLine accepts only the spelling that encodeLine gives.
func decodeLine[T any](b []byte, v *T) error {
	if err := json.Unmarshal(b, v, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	again, err := encodeLine(*v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, append(slices.Clone(b), '\n')) {
		return errors.New("line is not spelled as it is written")
	}
	return nil
}

func decodeHex(text string, size int) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if len(b) != size || hex.EncodeToString(b) != text {
		return nil, fmt.Errorf("%q is not %d bytes in lower-case hexadecimal", text, size)
	}
	return b, nil
}
