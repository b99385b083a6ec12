# Makes the table of benches/ports.sh, and for each measure a file of that name in `folder` for the drawing: a title, then a line "SWITCH
# MEDIAN LEAST MOST COLOUR" for each switch. Input: the names of the switches in order, then lines "SWITCH MEASURE VALUE", values in order.
BEGIN {
    split("tcp1 tcp4 udp connections p50 p99 cpu", measures, " ")
    title["tcp1"] = "TCP, 1 stream, Gb/s"
    title["tcp4"] = "TCP, 4 streams, Gb/s"
    title["udp"] = "UDP, 64 bytes, kpps"
    title["connections"] = "new connections a second"
    title["p50"] = "latency p50, us"
    title["p99"] = "latency p99, us"
    title["cpu"] = "CPU for TCP, 1 stream, ms/Gb"
    head = "| switch |"; rule = "|---|"
    for (i = 1; i in measures; i++) { head = head " " title[measures[i]] " |"; rule = rule "---|" }
    less["p50"] = less["p99"] = less["cpu"] = 1
}
NF == 1 { switches[++count] = $1; next }
{ value[$1, $2, ++n[$1, $2]] = $3 }
function median(name, measure,    all, half) {
    all = n[name, measure]; half = int((all + 1) / 2)
    return all % 2 ? value[name, measure, half] : (value[name, measure, half] + value[name, measure, half + 1]) / 2
}
function show(figure) { return sprintf(figure < 10 ? "%.2f" : figure < 1000 ? "%.1f" : "%.0f", figure) }
function spread(name, measure) {
    return show(median(name, measure)) " (" show(value[name, measure, 1]) " to " show(value[name, measure, n[name, measure]]) ")"
}
# The median of the best Open vSwitch; 0 if there is none.
function best_ovs(measure,    i, name, figure, best) {
    for (i = 1; i <= count; i++) {
        name = switches[i]
        if (name !~ /^ovs/ || !((name, measure) in n)) continue
        figure = median(name, measure)
        if (!best || (measure in less ? figure < best : figure > best)) best = figure
    }
    return best + 0
}
function colour(name) { return name ~ /^sluice/ ? "0x2b6cb0" : name ~ /^ovs/ ? "0xc9a227" : "0x888888" }
function ratio(figure, base) { return base > 0 ? sprintf("%.2fx", figure / base) : "-" }
END {
    print head " idle CPU, % | request after 20 ms of idleness, us |"
    print rule "---|---|"
    for (i = 1; i <= count; i++) {
        name = switches[i]
        line = "| " name " |"
        for (j = 1; j in measures; j++) {
            measure = measures[j]; figure = median(name, measure)
            base = ("bridge", measure) in n ? median("bridge", measure) : 0
            line = line " " spread(name, measure) " " ratio(figure, base) " " ratio(figure, best_ovs(measure)) " |"
            if (i == 1) print title[measure] > (folder "/" measure)
            print name, figure, value[name, measure, 1], value[name, measure, n[name, measure]], colour(name) > (folder "/" measure)
        }
        line = line " " ((name, "idle") in n ? spread(name, "idle") : "-") " |"
        print line " " spread(name, "pause") ", " ratio(median(name, "pause"), median(name, "busy")) " of one back to back |"
    }
}
