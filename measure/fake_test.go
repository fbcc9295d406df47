package measure

import (
	"context"
	"errors"
	"slices"
	"sync"
)

var (
	errTPM     = errors.New("TPM answers with an error")
	errJournal = errors.New("no space left on journal")
)

// fakeTPM has PCRs in memory. fail says how the coming extends go wrong; it
// writes what it does to trace.
type fakeTPM struct {
	mu     sync.Mutex
	banks  []Alg
	pcrs   map[PCR][]Digest
	fail   []failure
	noRead bool // ReadPCR fails
	trace  *[]string
}

// failure is how one extend goes.
type failure int

const (
	works     failure = iota
	lostInput         // error, the PCR is not extended
	lostReply         // error, the PCR is extended
	scrambled         // error, the PCR holds something else
)

func newFakeTPM(banks ...Alg) *fakeTPM {
	t := &fakeTPM{banks: banks, pcrs: map[PCR][]Digest{}, trace: new([]string)}
	for pcr := range PCR(NumPCRs) {
		for _, alg := range banks {
			t.pcrs[pcr] = append(t.pcrs[pcr], Digest{alg, make([]byte, alg.Size())})
		}
	}
	return t
}

func (t *fakeTPM) Banks() []Alg { return t.banks }

func (t *fakeTPM) Extend(ctx context.Context, pcr PCR, digests []Digest) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.trace = append(*t.trace, "extend")
	if err := ctx.Err(); err != nil {
		return err
	}
	how := works
	if len(t.fail) > 0 {
		how, t.fail = t.fail[0], t.fail[1:]
	}
	switch how {
	case lostInput:
		return errTPM
	case scrambled:
		digests = Record{Name: "x/y"}.Digests(t.banks)
	}
	t.pcrs[pcr] = t.extended(pcr, digests)
	if how != works {
		return errTPM
	}
	return nil
}

// extended knows the values of the SHA-1 bank as little as extendAll does.
func (t *fakeTPM) extended(pcr PCR, digests []Digest) []Digest {
	var next []Digest
	for i, v := range t.pcrs[pcr] {
		d := Digest{v.Alg, make([]byte, v.Alg.Size())}
		if v.Alg.Computable() {
			h := v.Alg.New()
			h.Write(v.Sum)
			h.Write(digests[i].Sum)
			d.Sum = h.Sum(nil)
		}
		next = append(next, d)
	}
	return next
}

func (t *fakeTPM) ReadPCR(ctx context.Context, pcr PCR) ([]Digest, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if t.noRead {
		return nil, errTPM
	}
	var values []Digest
	for _, d := range t.pcrs[pcr] {
		values = append(values, Digest{d.Alg, slices.Clone(d.Sum)})
	}
	return values, nil
}

// fakeJournal keeps what it is given.
type fakeJournal struct {
	start  []PCRValue
	events []Event
	fail   bool
	trace  *[]string
}

func (j *fakeJournal) Begin(start []PCRValue) error {
	if j.fail {
		return errJournal
	}
	j.start = start
	return nil
}

func (j *fakeJournal) Append(e Event) error {
	*j.trace = append(*j.trace, "append")
	if j.fail {
		return errJournal
	}
	j.events = append(j.events, e)
	return nil
}
