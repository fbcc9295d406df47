package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent"
	"waxseal/agent/challenge"
	"waxseal/agent/journal"
	"waxseal/boot/handoff"
	"waxseal/hw/tpm"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

// An agent that ends maxCrashes times within crashWindow stays down: a
// router is not to be kept busy by it.
const (
	maxCrashes  = 3
	crashWindow = 60 * time.Second
	crashPause  = time.Second
)

// followLimit is how long process 1 may take from the start of the agent to
// the hand-over.
const followLimit = 2 * time.Minute

// supervise follows the hand-over into the new root and keeps "waxseald serve"
// running beside the router's userland.
func supervise(log *slog.Logger) error {
	go closeLate(log)
	if err := handoff.Follow(followLimit); err != nil {
		return err
	}
	var crashes []time.Time
	for {
		cmd := exec.Command("/proc/self/exe", "serve")
		cmd.Args[0] = "waxseald"
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM}
		err := cmd.Run()
		log.Warn("agent ended", "cause", err)
		now := time.Now()
		crashes = append(crashes, now)
		if len(crashes) >= maxCrashes && now.Sub(crashes[len(crashes)-maxCrashes]) < crashWindow {
			return fmt.Errorf("agent ended %d times within %v: it stays down", maxCrashes, crashWindow)
		}
		time.Sleep(crashPause)
	}
}

// closeLate caps the PCRs of a TPM that process 1 did not find in time. It
// begins before the router's userland does, and does not hold it up.
func closeLate(log *slog.Logger) {
	res, err := loadResult()
	if err != nil || res.Unattested != reason(tpm.ErrNoTPM) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), followLimit)
	defer cancel()
	dev, err := tpm.Open(ctx)
	if err != nil {
		return // there is none
	}
	defer dev.Close()
	if err := closePCRs(ctx, dev); err != nil {
		log.Error("PCRs of a late TPM stay open", "cause", err)
	}
}

// serve is the agent: it takes the log of the boot up where process 1 left it
// and answers until it is told to stop.
func serve(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	res, err := loadResult()
	if err != nil {
		log.Warn("result of the boot", "cause", err)
		res = result{Unattested: "result of the boot is unknown"}
	}
	c := agent.Config{
		Card: card(res), Unattested: res.Unattested, State: stateDir, Log: log,
		RESTCONF: restconfAddress(log), Uptime: uptime,
	}
	if c.OwnerCA, err = os.ReadFile(ownerFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.Unattested == "" {
		dev, err := attach(ctx, &c, log)
		if err != nil {
			log.Error("device cannot attest", "cause", err)
			c.Unattested = err.Error()
		}
		if dev != nil {
			defer dev.Close()
		}
	}
	if err := attachFindings(&c); err != nil {
		log.Error("findings are not recorded", "cause", err)
	} else {
		var watching sync.WaitGroup
		beat := &pulse{born: time.Now()}
		c.BeforeQuote = func(ctx context.Context) { beat.check(ctx, c.Findings, time.Now()) }
		watching.Go(func() { guardTraffic(ctx, c.Findings, beat, c.Card.Serial, log) })
		defer watching.Wait()
		defer stop()
	}
	err = agent.Run(ctx, c)
	if errors.Is(err, agent.ErrOwnerCA) {
		// Fails closed: without anchors nobody can challenge or rotate, but the reason can be asked for.
		log.Error("device counts as one without an owner", "cause", err)
		c.OwnerCA, c.Unattested = nil, err.Error()
		err = agent.Run(ctx, c)
	}
	return err
}

// card says who this device is: a fixed box is its own only control card.
func card(res result) wire.Card {
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	serial := or(res.Serial, "unknown")
	return wire.Card{
		Role: wire.Active, Serial: serial, Slot: "0",
		Maker: "waxseal", Part: or(res.Board, "unknown"), ChassisSerial: serial,
	}
}

// attach opens the TPM and gives the agent its keys, their certificates and
// its log. With keys but without a log the device is returned beside the
// error: it can say under its own identity why it does not attest.
func attach(ctx context.Context, c *agent.Config, log *slog.Logger) (*tpm.Device, error) {
	dev, err := tpm.Open(ctx)
	if err != nil {
		return nil, err
	}
	if err := attachKeys(ctx, c, dev, log); err != nil {
		c.IAK, c.IDevID, c.Quoter, c.Tokens, c.Enroller = nil, nil, nil, nil, nil
		return nil, errors.Join(err, dev.Close())
	}
	return dev, attachLog(ctx, c, dev)
}

func attachLog(ctx context.Context, c *agent.Config, dev *tpm.Device) error {
	j, err := journal.Open(journalDir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	start, events, err := j.Load()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	recorder, err := measure.Resume(ctx, dev, j, start, events)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	contents, err := challenge.OpenContents(contentsDir)
	if err != nil {
		return err
	}
	firmware, err := readFirmwareLog()
	if err != nil {
		return err
	}
	c.Recorder, c.Kept, c.Firmware = recorder, contents, firmware
	return nil
}

// readFirmwareLog returns the firmware's log. A firmware that left none gives
// an empty one: the verifier sees that nothing explains its PCRs.
func readFirmwareLog() (eventlog.Log, error) {
	b, err := os.ReadFile(firmwareLog)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return eventlog.Log{}, nil
	}
	if err != nil {
		return eventlog.Log{}, err
	}
	l, err := eventlog.DecodeTCG(b)
	if err != nil {
		return eventlog.Log{}, fmt.Errorf("firmware log: %w", err)
	}
	return l, nil
}

// attachKeys gives the agent the device's keys. A device that was never
// provisioned has none, and says so when it is asked.
func attachKeys(ctx context.Context, c *agent.Config, dev *tpm.Device, log *slog.Logger) error {
	iak, _, err := dev.Public(ctx, tpm.IAK)
	if errors.Is(err, tpm.ErrNoKey) {
		return errors.New("device has no IAK: it was never provisioned")
	}
	if err != nil {
		return err
	}
	c.IAK, c.Quoter, c.Tokens = iak, quoter{dev}, quoter{dev}
	if c.IDevID, err = dev.Signer(ctx, tpm.IDevID); err != nil {
		return err
	}
	c.Enroller = enroller{dev}
	for _, cert := range []struct {
		index uint32
		chain *wire.Chain
	}{{tpm.NVCertIAK, &c.IAKCert}, {tpm.NVCertIDevID, &c.IDevIDCert}} {
		x, err := dev.Certificate(ctx, cert.index)
		if err != nil {
			log.Warn("maker's certificate", "index", fmt.Sprintf("0x%08x", cert.index), "cause", err)
			continue
		}
		*cert.chain = wire.ChainOf(x)
	}
	attachProver(ctx, c, dev, log)
	return nil
}

// quoter quotes with the IAK and no other key.
type quoter struct{ *tpm.Device }

// Quote implements quote.Quoter.
func (q quoter) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) (attest, signature []byte, err error) {
	attest, signature, err = q.Device.Quote(ctx, tpm.IAK, nonce, bank, pcrs)
	return attest, signature, onWire(err)
}

// SignData implements attestz.Signer.
func (q quoter) SignData(ctx context.Context, data []byte) ([]byte, error) {
	signature, err := q.Device.SignData(ctx, data)
	return signature, onWire(err)
}

// onWire says in the wire's words what a challenger can do about the error.
func onWire(err error) error {
	switch {
	case errors.Is(err, tpm.ErrBusy):
		return fmt.Errorf("%w: %w", wire.ErrBusy, err)
	case errors.Is(err, tpm.ErrNoAnswer):
		return fmt.Errorf("%w: %w", wire.ErrRetry, err)
	case errors.Is(err, tpm.ErrWrapped):
		return fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	case errors.Is(err, tpm.ErrNoKey):
		return fmt.Errorf("%w: %w", wire.ErrNotReady, err)
	}
	return err
}
