--- The models and who serves them, reread when their file changes.

local cjson = require "cjson.safe"
local file = require "gateway.file"

local FILE = ngx.config.prefix() .. "gateway.json"
local STRATEGIES = { lru = true, lottery = true, shortest_queue = true, round_robin = true, prefix = true }

local shared = ngx.shared.gateway

-- Models by name, also by alias; names sorted; splits by name; replicas by key, and one after the other. Where there are
-- `hosts`, who has no key must call us by one of these names, or by one that can only be this machine's.
local M = { models = {}, names = {}, splits = {}, replicas = {}, in_line = {}, open = true, version = 0 }

local function is_number(value, low)
    return value == nil or (type(value) == "number" and value >= low)
end

local function is_text(value)
    return value == nil or type(value) == "string"
end

-- What makes a model none, in words; nil when it is one.
local function problem_of(model)
    if type(model) ~= "table" or type(model.upstream_model) ~= "string" or type(model.replicas) ~= "table" then
        return "lacks upstream_model or replicas"
    elseif #model.replicas == 0 then
        return "lacks replicas"
    end
    for _, replica in ipairs(model.replicas) do
        if type(replica) ~= "table" or type(replica.name) ~= "string" or type(replica.address) ~= "string" then
            return "has a replica without name or address"
        elseif not is_number(replica.limit, 1) or not is_number(replica.weight, 0) then
            return "has a replica whose limit or weight is no number"
        end
    end
    for _, text in ipairs({ "health", "fallback", "retry" }) do
        if not is_text(model[text]) then
            return text .. " is no text"
        end
    end
    if not is_number(model.queue, 0) or not is_number(model.patience, 0) then
        return "queue or patience is no number"
    elseif not STRATEGIES[model.balance or "lru"] then
        return "knows no balance " .. tostring(model.balance)
    elseif type(model.paths or {}) ~= "table" or type(model.remote or {}) ~= "table" then
        return "paths or remote is no table"
    elseif model.remote and (type(model.remote.host) ~= "string" or type(model.remote.upstream) ~= "string") then
        return "remote lacks host or upstream"
    end
end

local function as_set(list)
    local set = {}
    for _, word in ipairs(list) do
        set[word] = true
    end
    return set
end

local function complete(name, model, replicas)
    model.name = name
    model.balance = model.balance or "lru"
    model.limited = false
    for _, replica in ipairs(model.replicas) do
        -- Adapters of one model have the same replicas, and a name may come back at another address.
        replica.key = replica.name .. "@" .. replica.address
        replica.health = model.health ~= "" and (model.health or "/health") or nil
        replica.passive = model.remote ~= nil and replica.health == nil
        replica.state = "state:" .. replica.key
        replica.used = "used:" .. replica.key
        model.limited = model.limited or replica.limit ~= nil
        replicas[replica.key] = replica
    end
    model.simple = model.balance == "lru" and not model.limited
end

local function parse(text)
    local document, problem = cjson.decode(text)
    if type(document) ~= "table" or document.version ~= 1 or type(document.models) ~= "table" then
        return nil, problem or "not a document of version 1"
    end
    local found = { models = document.models, names = {}, splits = document.splits or {}, replicas = {} }
    for name, model in pairs(document.models) do
        local wrong = problem_of(model)
        if wrong then
            return nil, "model " .. name .. " " .. wrong
        end
        complete(name, model, found.replicas)
        found.names[#found.names + 1] = name
    end
    for name, parts in pairs(found.splits) do
        found.names[#found.names + 1] = name
        local split = { total = 0 }
        for model, weight in pairs(parts) do
            if not found.models[model] or type(weight) ~= "number" or weight < 0 then
                return nil, "split " .. name .. " names no model with a weight: " .. tostring(model)
            end
            split[#split + 1] = { model = model, weight = weight }
            split.total = split.total + weight
        end
        found.splits[name] = split
    end
    for alias, name in pairs(document.aliases or {}) do
        if not found.models[name] and not found.splits[name] then
            return nil, "alias " .. alias .. " is for no model: " .. tostring(name)
        end
        found.names[#found.names + 1] = alias
        found.models[alias] = found.models[name]
        found.splits[alias] = found.splits[name]
    end
    found.in_line = {}
    for _, replica in pairs(found.replicas) do
        found.in_line[#found.in_line + 1] = replica
    end
    table.sort(found.names)
    found.open = document.open ~= false
    found.cors = document.cors
    found.hosts = document.hosts and as_set(document.hosts)
    found.keys = document.keys
    return found
end

local changed = file.watch(FILE)

--- Rereads the file; returns whether there are new routes. What makes no sense is not taken, and logged once.
function M.reread()
    local text, problem = changed()
    if text == false then
        return false
    end
    local found
    if text then
        found, problem = parse(text)
    end
    if not found then
        ngx.log(ngx.ERR, FILE, " is not taken, the routes stay as they are: ", problem)
        return false
    end
    for key, value in pairs(found) do
        M[key] = value
    end
    M.cors, M.hosts, M.keys = found.cors, found.hosts, found.keys
    M.version = M.version + 1
    for _, name in ipairs(found.names) do
        shared:safe_add("created:" .. name, ngx.time())
    end
    return true
end

--- The model behind a name: itself, one of a split by weight, nil when there is none.
function M.find(name)
    local model = M.models[name]
    if model then
        return model
    end
    local split = M.splits[name]
    if not split then
        return nil
    end
    local ball = math.random() * split.total
    for _, part in ipairs(split) do
        ball = ball - part.weight
        if ball < 0 then
            return M.models[part.model]
        end
    end
    return M.models[split[#split].model]
end

function M.knows(name)
    return M.models[name] ~= nil or M.splits[name] ~= nil
end

-- Number of letters to insert, delete or exchange to make one name of the other (Levenshtein).
local function distance(one, other)
    local row = {}
    for column = 0, #other do
        row[column] = column
    end
    for line = 1, #one do
        local diagonal
        diagonal, row[0] = row[0], line
        for column = 1, #other do
            local exchange = diagonal + (one:byte(line) == other:byte(column) and 0 or 1)
            diagonal = row[column]
            row[column] = math.min(exchange, row[column] + 1, row[column - 1] + 1)
        end
    end
    return row[#other]
end

--- The name most like a wrong one among those that `may` be told, if any is.
function M.nearest(wrong, may)
    local best, least
    for _, name in ipairs(M.names) do
        if may(name) and math.abs(#name - #wrong) <= math.max(2, #name / 3) then
            local changes = distance(wrong:lower(), name:lower())
            if changes <= math.max(2, #name / 3) and (not least or changes < least) then
                best, least = name, changes
            end
        end
    end
    return best
end

return M
