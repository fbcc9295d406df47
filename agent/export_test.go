package agent

// Served returns the full name of every call that the server answers, from
// the server itself.
func (a *Agent) Served() []string {
	var methods []string
	for service, info := range a.server.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	return methods
}
