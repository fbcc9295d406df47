package boot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"waxseal/measure"
)

// firmwarePCRs is how many PCRs, from 0, the aggregate covers (as
// boot_aggregate of Linux IMA does since 5.8).
const firmwarePCRs = 10

// maxAgent bounds the executable of the agent, in bytes.
const maxAgent = 256 << 20

// agent records the executable that is running this code.
func (e emitter) agent() error {
	const name = "agent/exe"
	content, err := e.hashAgent()
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	return e.sum(name, content, nil)
}

func (e emitter) hashAgent() (content [sha256.Size]byte, err error) {
	exe, err := e.src.Agent(e.ctx)
	if err != nil {
		return content, err
	}
	defer exe.Close()
	h, n := sha256.New(), int64(0)
	err = e.reader.each(e.ctx, io.LimitReader(exe, maxAgent+1), func(b []byte) {
		n += int64(len(b))
		h.Write(b)
	})
	if err == nil && n > maxAgent {
		err = fmt.Errorf("executable is larger than %d bytes", maxAgent)
	}
	return sum(h), err
}

// identity records the serial number.
func (e emitter) identity() error {
	const name = "identity/serial"
	serial, err := e.src.Serial(e.ctx)
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	return e.sum(name, sha256.Sum256([]byte(serial)), nil)
}

// aggregate records the values of PCR 0 to 9 of one bank, which binds this log
// to the firmware's.
func (e emitter) aggregate() error {
	const name = "aggregate/boot"
	values, err := e.src.FirmwarePCRs(e.ctx)
	if err == nil {
		err = checkAggregate(values)
	}
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	var all []byte
	for _, v := range values {
		all = append(all, v.Sum...)
	}
	return e.sum(name+"?c="+values[0].Alg.String(), sha256.Sum256(all), nil)
}

func checkAggregate(values []measure.Digest) error {
	if len(values) != firmwarePCRs {
		return fmt.Errorf("%d values for PCR 0 to 9", len(values))
	}
	for i, v := range values {
		if v.Alg != values[0].Alg || !v.Alg.Computable() || len(v.Sum) != v.Alg.Size() {
			return fmt.Errorf("PCR %d: %d bytes of bank %s", i, len(v.Sum), v.Alg)
		}
	}
	return nil
}

// owner records the trust anchors of the owner.
func (e emitter) owner(it Item) error {
	const name = "owner/ca"
	tree, err := e.src.Tree(e.ctx, it.Volume)
	if err != nil {
		return e.missing(name, e.sourceError(err))
	}
	pem, err := readFile(tree, it.Path, it.maxSize())
	if err != nil {
		return e.missing(name, err)
	}
	return e.text(name, pem)
}

// sourceError keeps a prediction from expecting that a thing is absent only
// because the build host did not give it.
func (e emitter) sourceError(err error) error {
	if e.strict && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the build host has no such source: %v", ErrUnpredictable, err)
	}
	return err
}
