// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ModelRegistry} from "./ModelRegistry.sol";

/// Where hosts say that they exist: their URL, the models that they serve and at which price. Nothing here binds a job; price and
/// model are in each job's terms. Pages shift when hosts leave: a reader who needs all of them reads at one block.
contract NodeRegistry {
    struct Node {
        address account;
        string url;
        bytes32[] models;
        uint96[] prices;
        bool active;
    }

    struct Entry {
        string url;
        bytes32[] models;
        uint256 position; // in _accounts, counted from 1; 0 while not registered
    }

    uint256 public constant MAX_URL_BYTES = 256;
    uint256 public constant MAX_MODELS = 32;

    ModelRegistry public immutable modelRegistry;
    mapping(address account => Entry) private _entries;
    mapping(address account => mapping(bytes32 modelId => uint96)) private _prices;
    mapping(bytes32 modelId => mapping(address account => uint256)) private _positions; // in _serving, from 1
    mapping(bytes32 modelId => address[]) private _serving;
    address[] private _accounts;

    event NodeRegistered(address indexed account, string url, bytes32[] modelIds, uint96[] prices);
    event NodeUpdated(address indexed account, string url, bytes32[] modelIds, uint96[] prices);
    event NodeUnregistered(address indexed account);

    error BadUrl();
    error BadModelCount();
    error LengthMismatch();
    error ModelNotApproved(bytes32 modelId);
    error DuplicateModel(bytes32 modelId);
    error ZeroPrice(bytes32 modelId);
    error NotRegistered();
    error ZeroLimit();

    constructor(ModelRegistry modelRegistry_) {
        modelRegistry = modelRegistry_;
    }

    /// Registers the caller, or replaces all that it said before.
    function register(string calldata url, bytes32[] calldata modelIds, uint96[] calldata prices) external {
        if (bytes(url).length == 0 || bytes(url).length > MAX_URL_BYTES) revert BadUrl();
        if (modelIds.length == 0 || modelIds.length > MAX_MODELS) revert BadModelCount();
        if (modelIds.length != prices.length) revert LengthMismatch();
        Entry storage entry = _entries[msg.sender];
        bool known = entry.position != 0;
        if (known) {
            _dropModels(entry);
        } else {
            _accounts.push(msg.sender);
            entry.position = _accounts.length;
        }
        entry.url = url;
        entry.models = modelIds;
        for (uint256 i; i < modelIds.length; ++i) {
            _offer(modelIds[i], prices[i]);
        }
        if (known) emit NodeUpdated(msg.sender, url, modelIds, prices);
        else emit NodeRegistered(msg.sender, url, modelIds, prices);
    }

    function unregister() external {
        Entry storage entry = _entries[msg.sender];
        if (entry.position == 0) revert NotRegistered();
        _dropModels(entry);
        address last = _accounts[_accounts.length - 1];
        _accounts[entry.position - 1] = last;
        _entries[last].position = entry.position;
        _accounts.pop();
        delete _entries[msg.sender];
        emit NodeUnregistered(msg.sender);
    }

    function _offer(bytes32 id, uint96 price) private {
        if (price == 0) revert ZeroPrice(id);
        if (_prices[msg.sender][id] != 0) revert DuplicateModel(id);
        if (!modelRegistry.isApproved(id)) revert ModelNotApproved(id);
        _prices[msg.sender][id] = price;
        _serving[id].push(msg.sender);
        _positions[id][msg.sender] = _serving[id].length;
    }

    function _dropModels(Entry storage entry) private {
        uint256 count = entry.models.length;
        for (uint256 i; i < count; ++i) {
            bytes32 id = entry.models[i];
            address[] storage serving = _serving[id];
            uint256 position = _positions[id][msg.sender];
            address last = serving[serving.length - 1];
            serving[position - 1] = last;
            _positions[id][last] = position;
            serving.pop();
            delete _positions[id][msg.sender];
            delete _prices[msg.sender][id];
        }
    }

    // -- views

    function isActive(address account) public view returns (bool) {
        return _entries[account].position != 0;
    }

    /// Base units for 1,000,000 tokens; 0 where `account` does not offer the model.
    function priceOf(address account, bytes32 modelId) external view returns (uint96) {
        return _prices[account][modelId];
    }

    /// An empty node that is not active where `account` is not registered.
    function node(address account) public view returns (Node memory n) {
        Entry storage entry = _entries[account];
        n.account = account;
        n.url = entry.url;
        n.models = entry.models;
        n.prices = new uint96[](n.models.length);
        for (uint256 i; i < n.models.length; ++i) {
            n.prices[i] = _prices[account][n.models[i]];
        }
        n.active = entry.position != 0;
    }

    /// Up to `limit` registered nodes; `next` is 0 at the end, else the cursor of the next page.
    function nodes(uint256 cursor, uint256 limit) external view returns (Node[] memory page, uint256 next) {
        return _page(_accounts, cursor, limit);
    }

    /// As `nodes`, only those that offer `modelId`.
    function nodesForModel(bytes32 modelId, uint256 cursor, uint256 limit)
        external
        view
        returns (Node[] memory page, uint256 next)
    {
        return _page(_serving[modelId], cursor, limit);
    }

    function _page(address[] storage accounts, uint256 cursor, uint256 limit)
        private
        view
        returns (Node[] memory page, uint256 next)
    {
        if (limit == 0) revert ZeroLimit();
        uint256 total = accounts.length;
        uint256 start = cursor < total ? cursor : total;
        uint256 count = total - start < limit ? total - start : limit;
        page = new Node[](count);
        for (uint256 i; i < count; ++i) {
            page[i] = node(accounts[start + i]);
        }
        next = start + count < total ? start + count : 0;
    }
}
