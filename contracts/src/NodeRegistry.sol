// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {HostStake} from "./HostStake.sol";
import {ModelRegistry} from "./ModelRegistry.sol";

/// Where staked hosts say that they exist: their URL, the key to which prompts are encrypted, the models that they serve, in which
/// currencies and at which price. Nothing here binds a job; price and model are in each job's terms. Who loses its stake stays listed,
/// but is not active. Pages shift when hosts leave: a reader who needs all of them reads at one block.
contract NodeRegistry {
    struct Offer {
        bytes32 modelId;
        address token; // ERC-20, or 0 for the native coin
        uint96 price; // base units for 1,000,000 tokens
    }

    struct Node {
        address account;
        string url;
        bytes32 encryptionKey; // X25519 public key; 0: none
        Offer[] offers;
        bool active; // registered, and staked now
    }

    struct Entry {
        string url;
        bytes32 encryptionKey;
        Offer[] offers;
        uint256 position; // in _accounts, counted from 1; 0 while not registered
    }

    uint256 public constant MAX_URL_BYTES = 256;
    uint256 public constant MAX_OFFERS = 64;

    ModelRegistry public immutable modelRegistry;
    HostStake public immutable stakes;
    mapping(address account => Entry) private _entries;
    mapping(address account => mapping(bytes32 modelId => mapping(address token => uint96))) private _prices;
    mapping(bytes32 modelId => mapping(address account => uint256)) private _positions; // in _serving, from 1
    mapping(bytes32 modelId => address[]) private _serving;
    address[] private _accounts;

    event NodeRegistered(address indexed account, string url, bytes32 encryptionKey, Offer[] offers);
    event NodeUpdated(address indexed account, string url, bytes32 encryptionKey, Offer[] offers);
    event NodeUnregistered(address indexed account);

    /// Empty, or longer than MAX_URL_BYTES.
    error BadUrl();
    /// None, or more than MAX_OFFERS.
    error BadOfferCount();
    /// What the caller has staked and is not unstaking is less than the minimum.
    error StakeTooLow(uint256 required, uint256 staked);
    /// The model was never approved, or is deprecated.
    error ModelNotApproved(bytes32 modelId);
    /// Two prices for one model in one currency.
    error DuplicateOffer(bytes32 modelId, address token);
    /// Nothing is served for nothing: a price of 0 says that there is no offer.
    error ZeroPrice(bytes32 modelId, address token);
    /// The caller is not registered.
    error NotRegistered();
    /// A page of nothing would never end.
    error ZeroLimit();

    constructor(ModelRegistry modelRegistry_, HostStake stakes_) {
        (modelRegistry, stakes) = (modelRegistry_, stakes_);
    }

    /// Registers the caller, or replaces all that it said before.
    function register(string calldata url, bytes32 encryptionKey, Offer[] calldata offers) external {
        if (bytes(url).length == 0 || bytes(url).length > MAX_URL_BYTES) revert BadUrl();
        if (offers.length == 0 || offers.length > MAX_OFFERS) revert BadOfferCount();
        _checkStake();
        Entry storage entry = _entries[msg.sender];
        bool known = entry.position != 0;
        if (known) {
            _dropOffers(entry);
        } else {
            _accounts.push(msg.sender);
            entry.position = _accounts.length;
        }
        entry.url = url;
        entry.encryptionKey = encryptionKey;
        for (uint256 i; i < offers.length; ++i) {
            _offer(entry, offers[i]);
        }
        if (known) emit NodeUpdated(msg.sender, url, encryptionKey, offers);
        else emit NodeRegistered(msg.sender, url, encryptionKey, offers);
    }

    /// Takes the caller off every list; its stake is another matter.
    function unregister() external {
        Entry storage entry = _entries[msg.sender];
        if (entry.position == 0) revert NotRegistered();
        _dropOffers(entry);
        address last = _accounts[_accounts.length - 1];
        _accounts[entry.position - 1] = last;
        _entries[last].position = entry.position;
        _accounts.pop();
        delete _entries[msg.sender];
        emit NodeUnregistered(msg.sender);
    }

    function _checkStake() private view {
        if (stakes.isStaked(msg.sender)) return;
        // slither-disable-next-line unused-return -- when it can leave is of no interest here
        (uint96 staked, uint96 unstaking,,) = stakes.stakeOf(msg.sender);
        revert StakeTooLow(stakes.minimum(), staked - unstaking);
    }

    function _offer(Entry storage entry, Offer calldata offer) private {
        bytes32 id = offer.modelId;
        if (offer.price == 0) revert ZeroPrice(id, offer.token);
        if (_prices[msg.sender][id][offer.token] != 0) revert DuplicateOffer(id, offer.token);
        if (!modelRegistry.isApproved(id)) revert ModelNotApproved(id);
        _prices[msg.sender][id][offer.token] = offer.price;
        entry.offers.push(offer);
        if (_positions[id][msg.sender] != 0) return; // listed already, for another currency
        _serving[id].push(msg.sender);
        _positions[id][msg.sender] = _serving[id].length;
    }

    function _dropOffers(Entry storage entry) private {
        uint256 count = entry.offers.length;
        for (uint256 i; i < count; ++i) {
            bytes32 id = entry.offers[i].modelId;
            delete _prices[msg.sender][id][entry.offers[i].token];
            uint256 position = _positions[id][msg.sender];
            if (position == 0) continue; // taken off the list already, with another currency
            address[] storage serving = _serving[id];
            address last = serving[serving.length - 1];
            serving[position - 1] = last;
            _positions[id][last] = position;
            serving.pop();
            delete _positions[id][msg.sender];
        }
        delete entry.offers;
    }

    // -- views

    /// Registered, and staked now.
    function isActive(address account) public view returns (bool) {
        return _entries[account].position != 0 && stakes.isStaked(account);
    }

    /// Base units of `token` for 1,000,000 tokens of the model; 0 where `account` does not offer it for that currency.
    function priceOf(address account, bytes32 modelId, address token) external view returns (uint96) {
        return _prices[account][modelId][token];
    }

    /// An empty node that is not active where `account` is not registered.
    function node(address account) public view returns (Node memory) {
        Entry storage entry = _entries[account];
        return Node(account, entry.url, entry.encryptionKey, entry.offers, isActive(account));
    }

    /// Up to `limit` registered nodes; `next` is 0 at the end, else the cursor of the next page.
    function nodes(uint256 cursor, uint256 limit) external view returns (Node[] memory page, uint256 next) {
        return _page(_accounts, cursor, limit);
    }

    /// As `nodes`, only those that offer `modelId`; each once, whatever the number of currencies.
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
