package main

import (
	"fmt"
	"io"

	"waxseal/agent/mirror"
)

// outlet writes a report, one line at a time and each at once.
type outlet struct {
	to    io.Writer
	table bool
	err   error // of the first write that failed; nothing is written after it
}

func (o *outlet) capabilities(list []mirror.Capability) {
	if !o.table {
		line, err := mirror.CapabilityLine(list)
		o.write(line, err)
		return
	}
	for _, c := range list {
		o.write([]byte(c.Row()+"\n"), nil)
	}
}

func (o *outlet) incident(in mirror.Incident) {
	if o.table {
		o.write([]byte(in.Row()+"\n"), nil)
		return
	}
	line, err := in.Line()
	o.write(line, err)
}

func (o *outlet) write(line []byte, err error) {
	if o.err != nil {
		return
	}
	if err == nil {
		_, err = o.to.Write(line)
	}
	o.err = err
}

// failed tells why the report has a gap.
func (o *outlet) failed() error {
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("standard output: %w", o.err)
}
