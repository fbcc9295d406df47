package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"waxseal/fleet/enroll"
	"waxseal/hw/tpm"
	"waxseal/images"
	"waxseal/images/factory"
	"waxseal/images/vm"
	"waxseal/measure/evidence"
)

func factoryCommand() *cobra.Command {
	var caDir, serial string
	cmd := &cobra.Command{
		Use:   "factory STATE --ca DIR --serial SERIAL",
		Short: "Make a unit's TPM, its IAK and IDevID, and certify them with the vendor CA of the lab",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ca, err := factory.OpenOrMakeCA(caDir, time.Now())
			if err != nil {
				return err
			}
			return ca.WithTPM(cmd.Context(), filepath.Join(args[0], "tpm"), serial, func(dev *tpm.Device) error {
				r, err := factory.Provision(cmd.Context(), dev, ca, serial)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: unit %s\n  EK     %s\n  IAK    %s\n  IDevID %s\n", args[0], r.Serial, r.EK.Name, r.IAK.Name, r.IDevID.Name)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&caDir, "ca", "", "folder of the vendor CA; it is made where there is none")
	cmd.Flags().StringVar(&serial, "serial", "WX-0001", "the unit's serial number")
	cmd.MarkFlagRequired("ca")
	return cmd
}

func learnCommand() *cobra.Command {
	var file, trust string
	cmd := &cobra.Command{
		Use:   "learn DIR --evidence FILE --trust CA.pem",
		Short: "Record the firmware's own events (PCR 0-3, 5-7) of a golden boot, from its evidence",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := verified(file, trust)
			if err != nil {
				return err
			}
			if err := images.Learn(args[0], v.Firmware()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: recorded from unit %s\n", filepath.Join(args[0], images.FirmwareFile), v.Serial())
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "evidence", "", "evidence of the golden boot, saved by waxseal attest --save")
	cmd.Flags().StringVar(&trust, "trust", "", "PEM file with the owner's trust anchors")
	cmd.MarkFlagRequired("evidence")
	cmd.MarkFlagRequired("trust")
	return cmd
}

// verified reads evidence and proves that it is genuine.
func verified(file, trust string) (evidence.Verified, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return evidence.Verified{}, err
	}
	ev, err := evidence.Parse(b)
	if err != nil {
		return evidence.Verified{}, fmt.Errorf("%s: %w", file, err)
	}
	roots, err := enroll.ReadCertificates(trust)
	if err != nil {
		return evidence.Verified{}, err
	}
	v, err := evidence.Verify(ev, ev.Offline(), evidence.Trust{Roots: roots, Now: ev.Received})
	if err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

func runCommand() *cobra.Command {
	var c vm.Config
	var quiet, keys bool
	var rate int
	cmd := &cobra.Command{
		Use:   "run DIR --tpm STATE",
		Short: "Boot an image under QEMU until it ends or is interrupted; the guest's console goes to standard output",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Dir = args[0]
			if !quiet {
				c.Console = cmd.OutOrStdout()
			}
			if rate > 0 {
				c.Ports = 3
			}
			v, err := vm.Start(cmd.Context(), c)
			if err != nil {
				return err
			}
			defer v.Stop()
			fmt.Fprintf(cmd.ErrOrStderr(), "agent at %s\n", v.Address)
			if keys {
				go typeLines(v, cmd.InOrStdin())
			}
			if rate > 0 {
				go forward(cmd.Context(), v, rate, cmd.ErrOrStderr())
			}
			return untilEnd(cmd.Context(), v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.State, "tpm", "", "folder of the unit: its TPM and its firmware's variables")
	f.BoolVar(&c.NoTPM, "no-tpm", false, "a board without a TPM")
	f.IntVar(&c.Forward, "forward", 0, "port on 127.0.0.1 that leads to the agent; 0: a free one")
	f.IntVar(&c.RESTCONF, "forward-restconf", 0, "port on 127.0.0.1 that leads to the agent's RESTCONF; 0: none does")
	f.StringVar(&c.Serial, "serial", "WX-0001", "the unit's serial number")
	f.BoolVar(&c.Direct, "direct", false, "start kernel and initramfs without firmware")
	f.BoolVar(&quiet, "quiet", false, "do not show the console")
	f.BoolVar(&keys, "keys", false, "give lines of standard input to the router's console, which runs them as commands")
	f.IntVar(&rate, "traffic", 0, "packets a second that a client at eth1 sends through the router to a server at eth2, beside a collector at eth3; what they got is told every second; 0: no such ports")
	cmd.MarkFlagRequired("tpm")
	return cmd
}

func untilEnd(ctx context.Context, v *vm.VM) error {
	select {
	case <-v.Done():
		return v.Err()
	case <-ctx.Done():
		return nil
	}
}

// typeLines types the lines of in at the router's console.
func typeLines(v *vm.VM, in io.Reader) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := v.Type(lines.Text()); err != nil {
			return // the router has ended, which its console tells
		}
	}
}

// forward lets the router's neighbours send, and tells what each of them got.
func forward(ctx context.Context, v *vm.VM, rate int, out io.Writer) {
	n, err := vm.NewNeighbours(v)
	if err != nil {
		fmt.Fprintln(out, "traffic:", err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx, rate) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				fmt.Fprintln(out, "traffic:", err)
			}
			return
		case <-tick.C:
			fmt.Fprintln(out, "traffic:", n.Traffic())
		}
	}
}
