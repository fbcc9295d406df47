package findings

import (
	"fmt"

	"waxseal/agent/mirror"
	"waxseal/measure/finding"
)

// inventory tells whether a kind is about the machine rather than about traffic:
// its differences are recorded also where they are only information.
func inventory(k mirror.Kind) bool {
	switch k {
	case mirror.Socket, mirror.Program, mirror.Listener, mirror.Module, mirror.Namespace:
		return true
	}
	return false
}

// name returns the subject of an incident: its name without a step.
func name(in mirror.Incident) string {
	class := "mirror"
	if inventory(in.Kind) {
		class = "runtime"
	}
	full := finding.Name(class, string(in.Kind), in.ID, finding.Info)
	subject, _, _ := finding.Split(full)
	return subject
}

func stepOf(in mirror.Incident) finding.Step {
	switch {
	case in.State == mirror.Ended:
		return finding.Ended
	case in.Authorised != "" && in.Severity == mirror.Info:
		return finding.Authorised
	case in.Severity == mirror.Alarm:
		return finding.Alarm
	case in.Severity == mirror.Notice:
		return finding.Notice
	}
	return finding.Info
}

func describe(in mirror.Incident) finding.Finding {
	in = in.Clean()
	return finding.Finding{
		Kind: string(in.Kind), Severity: string(in.Severity), State: string(in.State), Cause: in.Cause, Ports: in.Ports,
		Inner: between(in.Inner), Outer: between(in.Outer), Process: process(in.Process), Netns: in.Netns, Subject: in.Subject,
		Rate: in.Rate, Count: in.Count, First: in.First, Last: in.Last, Detector: in.Detector,
		Authorised: in.Authorised, Evidence: in.Evidence,
	}
}

func between(f mirror.Flow) string {
	switch {
	case f.Source.IsValid() && f.Destination.IsValid():
		return fmt.Sprintf("%s → %s", f.Source, f.Destination)
	case f.Destination.IsValid():
		return fmt.Sprintf("→ %s", f.Destination)
	case f.Source.IsValid():
		return fmt.Sprintf("%s →", f.Source)
	}
	return ""
}

func process(p mirror.Process) string {
	switch {
	case p.PID == 0:
		return p.Comm
	case p.Comm == "":
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("%s (pid %d)", p.Comm, p.PID)
}

func coverage(list []mirror.Capability) finding.Coverage {
	var c finding.Coverage
	for _, each := range list {
		c.Parts = append(c.Parts, finding.Part{Name: each.Name, State: string(each.State), How: each.How, Cause: each.Why})
	}
	return c
}
